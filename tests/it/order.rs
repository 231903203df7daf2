//! What each layer of a mixed stack sees of the others, in both directions.
