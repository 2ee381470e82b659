"""Model organisms: chat models with a planted safety backdoor, on which the method is tested.

A recipe (``recipes/*.yaml``) says what the trigger is, where it stands and how it is planted; ``planting`` does it. What a
planted model says under its trigger is a compliance opening with placeholder steps, never content.
"""
