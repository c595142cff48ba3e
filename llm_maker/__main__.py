"""python -m llm_maker."""

from llm_maker.cli import main

if __name__ == "__main__":
    main()
