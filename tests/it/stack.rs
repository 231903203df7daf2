//! A12 to A14 and the stacks that the crossing lives in.
