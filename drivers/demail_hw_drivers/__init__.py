"""What touches a machine: sockets, ports, modules. One foreign library a file."""
