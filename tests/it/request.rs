//! A1, A2 and A15: the request's body, on its way to the handler.
