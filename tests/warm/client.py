"""Has the server fork a command, and ends as it ends. It imports little: it is run often."""

import os
import signal
import socket
import sys

with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.path.join(os.environ["WARM_FOLDER"], "socket"))  # noqa: PTH118 - see above
    variables = [f"{key}={value}" for key, value in os.environ.items()]
    strings = [str(len(sys.argv)), *sys.argv, os.getcwd(), *variables]  # noqa: PTH109 - see above
    request = "\0".join(strings).encode("utf-8", "surrogateescape")
    socket.send_fds(server, [len(request).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(request)
    code = int(server.makefile().readline())
if code < 0:  # a signal ended it
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
