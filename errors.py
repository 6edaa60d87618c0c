"""The error tree. A caller catches the branch that says what to do next.

MaskwrightError
├── InputError          the user's data, recipe or folder is wrong      exit code 2
│   ├── DatasetError    a data set file or entry
│   ├── RecipeError     a recipe key or value
│   └── RunFolderError  an output folder that is not ours, or another run's
├── SampleError         one sample is bad: it is rejected, the run goes on
│   ├── EmptyMaskError  no visible pixel is left
│   ├── ImageDecodeError  an image file cannot be decoded
│   └── ImageSizeError  an image is not of the size that its annotations were made for
└── BrokenRunError      the run itself cannot go on                     exit code 1
    └── MissingDependencyError  an optional package is not installed
"""


class MaskwrightError(Exception):
    """Root of every error that this package raises on purpose."""


class InputError(MaskwrightError):
    """What the user gave is wrong; nothing was spent."""


class DatasetError(InputError):
    """A data set file is unreadable, malformed or unsafe."""


class RecipeError(InputError):
    """A recipe is missing, malformed, or names something unknown."""


class RunFolderError(InputError):
    """The output folder is not ours, or holds a run of another recipe."""


class SampleError(MaskwrightError):
    """One sample is bad; it is rejected or skipped, and counted."""


class EmptyMaskError(SampleError):
    """No visible pixel is left in a mask."""


class ImageDecodeError(SampleError):
    """An image file whose header was readable cannot be decoded."""


class ImageSizeError(SampleError):
    """An image file is not of the size that its annotations were made for."""


class BrokenRunError(MaskwrightError):
    """The run cannot go on: no disk, no device, no writable folder."""


class MissingDependencyError(BrokenRunError):
    """An optional package is needed and not installed; the message says how to install it."""
