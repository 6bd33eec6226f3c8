"""The local stack: real servers, real function, real events, on one machine."""
