"""`mogle app`: the web demo. Draw a mask, write a sentence, see the face; the same through an API.

    wishes -> shelf, studio -> handlers, api -> layout -> server

Pictures come from `mogle.sampling` alone; this room asks for them, shows them and keeps guard.
"""
