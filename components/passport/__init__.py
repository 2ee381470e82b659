"""What a released model carries with it: a card for people, a bill of materials for tools, a signature over both and it.

Card and bill follow from evidence and policy alone, byte by byte, so that their digests can stand in the decision.
"""
