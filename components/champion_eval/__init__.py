"""Find the champion that a policy compares with, and take or make its measurements."""
