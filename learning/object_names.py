"""Which object pictures stand for which classes of COCO and of the quickstart, and which objects are held out."""

from __future__ import annotations

import hashlib

HELD_OUT_ONE_IN = 10

CLASS_PICTURES: dict[str, tuple[str, ...]] = {
    "airplane": ("airplane", "small airplane"),
    "apple": ("red apple", "green apple"),
    "backpack": ("backpack",),
    "banana": ("banana",),
    "bear": ("polar bear", "bear"),
    "bed": ("bed",),
    "bicycle": ("bicycle",),
    "bird": ("bird", "dove", "black bird", "parrot"),
    "boat": ("sailboat", "speedboat", "motor boat", "canoe"),
    "book": ("closed book", "open book", "green book", "blue book", "orange book"),
    "bottle": ("bottle with popping cork", "lotion bottle", "baby bottle"),
    "bowl": ("bowl with spoon", "steaming bowl"),
    "broccoli": ("broccoli",),
    "bus": ("bus", "oncoming bus", "trolleybus", "minibus"),
    "cake": ("birthday cake", "shortcake"),
    "camera": ("camera", "camera with flash"),
    "car": ("automobile", "sport utility vehicle", "racing car", "oncoming automobile"),
    "carrot": ("carrot",),
    "cat": ("cat", "black cat"),
    "cell phone": ("mobile phone",),
    "chair": ("chair", "seat"),
    "clock": ("mantelpiece clock", "alarm clock"),
    "coin": ("coin",),
    "couch": ("couch and lamp",),
    "cow": ("cow", "ox"),
    "cup": ("teacup without handle", "hot beverage", "cup with straw"),
    "dog": ("dog", "poodle", "guide dog"),
    "donut": ("doughnut",),
    "elephant": ("elephant",),
    "fork": ("fork and knife",),
    "frisbee": ("flying disc",),
    "giraffe": ("giraffe",),
    "handbag": ("handbag", "purse"),
    "horse": ("horse",),
    "hot dog": ("hot dog",),
    "keyboard": ("keyboard",),
    "kite": ("kite",),
    "knife": ("kitchen knife",),
    "laptop": ("laptop",),
    "motorcycle": ("motorcycle", "motor scooter"),
    "mouse": ("computer mouse",),
    "orange": ("tangerine",),
    "pizza": ("pizza",),
    "potted plant": ("potted plant",),
    "rocket": ("rocket",),
    "sandwich": ("sandwich",),
    "saucer": ("teacup without handle",),
    "scissors": ("scissors",),
    "sheep": ("ewe", "ram"),
    "skateboard": ("skateboard",),
    "skis": ("skis",),
    "spoon": ("spoon",),
    "sports ball": ("soccer ball", "basketball", "volleyball", "baseball"),
    "stop sign": ("stop sign",),
    "suitcase": ("luggage",),
    "teddy bear": ("teddy bear",),
    "tennis racket": ("tennis",),
    "tie": ("necktie",),
    "toilet": ("toilet",),
    "toothbrush": ("toothbrush",),
    "traffic light": ("vertical traffic light", "horizontal traffic light"),
    "train": ("locomotive", "train", "high-speed train", "bullet train"),
    "truck": ("delivery truck", "articulated lorry", "pickup truck"),
    "tv": ("television",),
    "umbrella": ("umbrella", "closed umbrella", "umbrella on ground"),
    "vase": ("amphora",),
    "wine glass": ("wine glass",),
    "zebra": ("zebra",),
}
"""Class of COCO or of the quickstart -> labels of the pictures that show it, the plainest first.

Not in it, because no picture shows them: person, fire hydrant, parking meter, bench, snowboard, baseball bat, baseball
glove, surfboard, dining table, remote, microwave, oven, toaster, sink, refrigerator, hair drier.
"""

_CLASSES_OF: dict[str, tuple[str, ...]] = {
    label: tuple(name for name, labels in CLASS_PICTURES.items() if label in labels)
    for label in {label for labels in CLASS_PICTURES.values() for label in labels}
}


def classes_of(label: str) -> tuple[str, ...]:
    """Classes of COCO and of the quickstart that a picture shows; mostly none."""
    return _CLASSES_OF.get(label, ())


def is_held_out(label: str) -> bool:
    """Whether an object is kept out of every training: one in ten by the hash of its name, never a class above."""
    digest = hashlib.sha256(label.encode()).digest()
    return not classes_of(label) and int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0
