"""W&T USB-Server, what of it is published: the inventory packet and the control socket with its password.

The layouts are those of the manuals of the manufacturer's Com-Server family, which shares them; of the USB-Server
itself the manual names the ports alone. How it carries USB is not published, and nothing here guesses at it.
"""
