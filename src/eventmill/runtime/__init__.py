"""What runs: members of groups, their handlers, their heartbeats, and the processes around them."""
