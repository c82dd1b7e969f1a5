"""What client and server say to each other.

``protocol``  names of the messages, version, connection facts
``requests``  the requests, one dataclass each: the only declaration of what can be asked
``codec``     any Python value to bytes and buffers, tensors out of band, digests on every buffer
``pickling``  cloudpickle, with the user's own modules by value: ``reaching`` finds what code uses of them, and
              they arrive as ``guests``
``transport`` where buffers travel: inside the message, or a file in shared memory on one host
``failures``  errors across the wire: user frames, original type
"""
