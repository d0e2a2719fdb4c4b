"""How captions come out of a model: beam search and sampling."""
