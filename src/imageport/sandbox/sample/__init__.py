"""The sample vDisk: a golden Windows image made from text, because none may be shipped."""
