"""What bench/peers.py starts and how it speaks to it: other servers, each in an environment of its own, and the load on them."""
