"""Every error that edgelm raises on purpose.

::

    EdgelmError
    ├── ConfigError       a model configuration or an option that cannot work
    ├── InputError        text that cannot be read: missing, empty, binary, too long
    ├── ModelFileError    a model folder that is missing, damaged, foreign or of another version
    ├── ProfileError      a profile that cannot be opened, read or written
    ├── DeviceError       too little memory, no kernels for this processor, or an extra that is not installed
    └── DivergenceError   learning produced a value that is not finite; it was taken back

The message of each says what was expected, what was found, where, and what to do. The command line
turns an ``EdgelmError`` into one line on stderr and exit code 1.
"""


class EdgelmError(Exception):
    """Base of all errors that edgelm raises on purpose.

    What a file says may be a part of the message, and be long: then the middle is left out.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message if len(message) <= 1000 else f"{message[:700]} ... {message[-250:]}")


class ConfigError(EdgelmError):
    """A model configuration or an option that cannot work."""


class InputError(EdgelmError):
    """Text that cannot be read: missing, empty, binary or too long."""


class ModelFileError(EdgelmError):
    """A model folder that is missing, damaged, foreign or of another version."""


class ProfileError(EdgelmError):
    """A profile that cannot be opened, read or written."""


class DeviceError(EdgelmError):
    """This device or installation cannot do it: too little memory, no kernels for its processor, an extra missing."""


class DivergenceError(EdgelmError):
    """Learning produced a value that is not finite; the update was taken back."""
