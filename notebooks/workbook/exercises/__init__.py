"""All exercises, in the order of the notebooks."""

from workbook.exercises import experts, faces, flows, flux, gating, stream, tokens, words

NOTEBOOKS = (faces, tokens, words, flows, flux, stream, experts, gating)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
