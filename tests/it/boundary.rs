//! C1 to C4: the two views of a request, and what crosses.
