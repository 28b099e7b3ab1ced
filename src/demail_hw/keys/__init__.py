"""Keys and certificates by role; the private keys are real subclasses of cryptography's."""
