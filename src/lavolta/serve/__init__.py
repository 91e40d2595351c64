"""A server on this computer: one resident model, the governor before every request, and what monitors show of it."""
