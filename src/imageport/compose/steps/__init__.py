"""The steps of composing; `order` lists them."""
