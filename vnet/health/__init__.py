"""What hosts find out about the network between them, and what is wrong by it. Pure: no sockets, no clock."""
