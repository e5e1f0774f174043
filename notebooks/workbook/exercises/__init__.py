"""All exercises, in the order of the notebooks."""

from workbook.exercises import ablations, experts, faces, flows, flux, gating, quickstart, stream, tokens, words

NOTEBOOKS = (quickstart, faces, tokens, words, flows, flux, stream, experts, gating, ablations)
EXERCISES = {exercise.name: exercise for notebook in NOTEBOOKS for exercise in notebook.EXERCISES}
