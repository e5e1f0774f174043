"""Answers to `workbook.exercises.quickstart`: wrong ones with words of their hints, right ones by another way."""

from workbook.exercises.quickstart import who_decides


def saying(text):
    return lambda: text


def predicting(**changes):
    return lambda: who_decides() | changes


#: Exercise -> (words of the hint, wrong answer).
WRONG = {
    "my_sentence": [
        ("expected a text", saying(7)),
        ("text is empty", saying("  ")),
        ("words and marks", saying("She has red hair, dark skin and a white hat. " * 4)),
        ("kind that the model has learned", saying("What a lovely person!")),
        ("it shows 'yes', and you ask for 'no'", saying("She has red hair, dark skin, blue clothes and no hat.")),
        ("for eyeglasses it shows 'no'", saying("She has red hair, dark skin, blue clothes and glasses.")),
        ("Hair of that kind", saying("Her hair is purple. She has dark skin, a white hat and blue clothes.")),
        ("stands in the mask already", saying("A smiling woman wears a hat and a necklace.")),
        ("2 of 3 facts", saying("She has red hair and dark skin.")),
    ],
    "who_decides": [
        ("a dictionary", lambda: list(who_decides().values())),
        ("no prediction for pose", lambda: {name: who for name, who in who_decides().items() if name != "pose"}),
        ("'hair color' is none of the attributes; do you mean 'hair_color'?", predicting(**{"hair color": "mask"})),
        ("'eyebrows' is none of the attributes; expected hat, earrings", predicting(eyebrows="mask")),
        ("Still open: light, rosy_cheeks", predicting(light=None, rosy_cheeks="")),
        ("age has more than one answer", predicting(age=("mask", "sentence"))),
        ("Found 'me' for pose; expected one of 'mask'", predicting(pose="me")),
        ("small letters: 'mask'", predicting(hat="Mask")),
        ("wrong way round", lambda: {"mask": "hat", "sentence": "age", "neither": "light"}),
    ],
}  # fmt: skip

#: Exercise -> a right answer that is not the package's.
OTHER_WAYS = {
    "my_sentence": saying("An elderly lady with lipstick, lit from the left, in front of a green wall."),
    "who_decides": predicting(smiling="neither", lipstick="neither", age="neither"),
}
