//! A4 and A8 to A11: threads, queues, cancellation, drops and panics.
