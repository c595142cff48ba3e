"""Stand-ins for the outside world, over real sockets on loopback; they misbehave on request."""
