#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../docs/guide/README.md")]

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/crossing.md")]
pub mod crossing {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/order.md")]
pub mod order {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/sizing.md")]
pub mod sizing {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/streaming.md")]
pub mod streaming {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/background.md")]
pub mod background {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/testing.md")]
pub mod testing {}

// Its code needs the other crate, whose tests have the page too.
#[cfg(not(doctest))]
#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/python.md")]
pub mod python {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/from_a2wsgi.md")]
pub mod from_a2wsgi {}

#[doc = include_str!("guide/links.md")]
#[doc = include_str!("../docs/guide/from_spawn_blocking.md")]
pub mod from_spawn_blocking {}
