"""All exercises, in the order of the notebooks."""

from workbook.exercises import experts, faces, flows, flux, gating, lora, quickstart, stream, tokens, words

NOTEBOOKS = (quickstart, faces, tokens, words, flows, flux, stream, experts, gating, lora)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
