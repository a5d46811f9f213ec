"""The core of mpreg: it decides, and touches nothing of the world."""
