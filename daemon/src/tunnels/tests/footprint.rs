//! What a tunnel without traffic costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use super::*;

/// The most that an idle further tunnel in a session may cost.
const MOST: usize = 2 * 1024;
const TUNNELS: u32 = 1000;

/// The system's allocator, which counts the bytes that each thread holds. Tests in other threads so do not matter.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may still free memory.
    let _ended = HELD.try_with(|held| held.set(held.get() + bytes));
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller keeps the rules.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller keeps the rules.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// All of the daemon, the pipe and the client run in the test's thread, so the figure is an upper bound.
#[tokio::test]
async fn a_further_tunnel_costs_at_most_2_kib() {
    let tunnels = tunnels();
    let mut peer = Peer::open(&tunnels, connect("a", Some("first")), &[]).await.unwrap();
    served_by(&tunnels, "first", &peer, 0).await;
    let before = HELD.get();
    for id in 1..TUNNELS {
        peer.bind(id, Some(&format!("tunnel-{id}"))).await.unwrap();
    }
    served_by(&tunnels, &format!("tunnel-{}", TUNNELS - 1), &peer, TUNNELS - 1).await;
    assert_eq!(tunnels.online(), TUNNELS as usize);
    let each = (HELD.get() - before).cast_unsigned() / (TUNNELS as usize - 1);
    println!("an idle further tunnel costs {each} bytes on both sides together");
    assert!(each <= MOST, "{each} bytes");
}
