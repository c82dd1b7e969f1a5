"""What the kernel of rank 0 takes of Jupyter's kernels beyond what they document.

They are replaced in :mod:`garcon_backend.kernel.application` and :mod:`garcon_backend.kernel.kernel`: a new name would leave
Jupyter's own in place, which lets more in.
"""

from __future__ import annotations

from garcon_jupyter.libraries.internals import Internal

INTERNALS = (
    Internal(
        "ipykernel.kernelapp",
        "IPKernelApp.init_iopub",
        "keeps what is printed off the network",
        ("context",),
    ),
    Internal(
        "ipykernel.kernelapp", "IPKernelApp._apply_curve_server_options", "encrypts what is printed"
    ),
    Internal("ipykernel.kernelapp", "IPKernelApp._bind_socket", "opens the socket of prints"),
    Internal(
        "ipykernel.ipkernel",
        "IPythonKernel.shell_channel_thread_main",
        "queues requests while another runs",
        ("msg",),
    ),
    Internal(
        "ipykernel.ipkernel",
        "IPythonKernel.shell_main",
        "survives messages that make no sense",
        ("subshell_id", "msg"),
    ),
    Internal(
        "ipykernel.ipkernel",
        "IPythonKernel.process_control",
        "survives messages that make no sense",
        ("msg",),
    ),
    Internal(
        "ipykernel.zmqshell",
        "ZMQInteractiveShell._update_exit_now",
        "keeps `exit` in a console from ending the server",
    ),
)
"""Looked for by the kernel's own file, since importing ipykernel is a matter of order there."""
