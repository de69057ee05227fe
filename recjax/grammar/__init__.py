"""Grammar of the command line, apart from the commands so that `recjax --help` imports no library."""
