"""The error tree. A caller catches the branch that says what to do next.

MaskwrightError
├── InputError          the user's data, recipe or folder is wrong      exit code 2
│   ├── DatasetError    a data set file or entry
│   ├── RecipeError     a recipe key or value
│   ├── RunFolderError  an output folder that is not ours, or another run's
│   ├── LeakError       a test image would be learned from
│   ├── UnknownModelError  a model name that the catalogue does not have
│   └── ModelAccessError  a language model's key is missing or refused, or its server does not know its name
├── SampleError         one sample is bad: it is rejected, the run goes on
│   ├── EmptyMaskError  no visible pixel is left
│   ├── ImageDecodeError  an image file cannot be decoded
│   ├── ImageSizeError  an image is not of the size that its annotations were made for
│   └── PromptError     a prompt that a painter cannot take
├── LanguageModelError  a language model let one item down: that item fails, the run goes on
│   ├── ModelOutageError  it cannot be reached or is overloaded; the same request may succeed later
│   ├── ModelRequestError  it refuses the request
│   └── UnparseableAnswerError  no answer of it fits the schema
└── BrokenRunError      the run itself cannot go on                     exit code 1
    ├── MissingDependencyError  an optional package is not installed
    ├── ModelFetchError  a model's files could not be brought into the cache
    └── ModelNotFetchedError  a model's files are not in the cache, or damaged there
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


class LeakError(InputError):
    """A test image would reach knowledge, references or training; no result measured on it would count."""


class UnknownModelError(InputError):
    """A model name is neither in the catalogue nor an id of the Hugging Face Hub."""


class ModelAccessError(InputError):
    """A language model's key is missing or refused, or its server does not know its name; no call can succeed."""


class SampleError(MaskwrightError):
    """One sample is bad; it is rejected or skipped, and counted."""


class EmptyMaskError(SampleError):
    """No visible pixel is left in a mask."""


class ImageDecodeError(SampleError):
    """An image file whose header was readable cannot be decoded."""


class ImageSizeError(SampleError):
    """An image file is not of the size that its annotations were made for."""


class PromptError(SampleError):
    """A prompt is empty, or longer than a painter's text encoder reads."""


class LanguageModelError(MaskwrightError):
    """A language model let one item down. The item fails, and it is never said that its sample was bad."""


class ModelOutageError(LanguageModelError):
    """A model cannot be reached, is overloaded or breaks down, also when asked again; it may succeed later."""


class ModelRequestError(LanguageModelError):
    """A model refuses a request: too long, an image it cannot take, a parameter it does not know."""


class UnparseableAnswerError(LanguageModelError):
    """A model was asked again and again, and no answer fits the schema."""


class BrokenRunError(MaskwrightError):
    """The run cannot go on: no disk, no device, no writable folder."""


class MissingDependencyError(BrokenRunError):
    """An optional package is needed and not installed; the message says how to install it."""


class ModelFetchError(BrokenRunError):
    """A model's files could not be brought into the cache: no network, no space, or other bytes than expected."""


class ModelNotFetchedError(BrokenRunError):
    """A model's files are not in the cache, or damaged there; the message says how to fetch them."""
