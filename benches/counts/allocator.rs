//! An allocator that counts.

#![expect(unsafe_code, reason = "the allocator's interface is unsafe")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cases::Case;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all of it is the system's allocator. What grows counts as an allocation as well: the default `realloc` makes a new block.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

const REQUESTS: u64 = 1000;

/// Allocations per request, on all threads together.
pub(crate) fn count(case: &Case) -> f64 {
    let run = |requests| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        (case.run)(requests);
        ALLOCATIONS.load(Ordering::Relaxed) - before
    };
    // What is made once is in both.
    let some = run(REQUESTS);
    let more = run(2 * REQUESTS);
    (more as f64 - some as f64) / REQUESTS as f64
}
