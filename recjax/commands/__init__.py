"""Commands, one file each: every one calls a function of another room and prints what it returns."""
