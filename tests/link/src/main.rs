//! A link between two network namespaces, with a delay, a rate, a bounded queue and loss in each direction.
//!
//! Standard input and standard output are its two ends: TUN interfaces that whoever starts this has opened, each for
//! reading and writing, without packet information. Whatever one of them sends comes out of the other one, later or not
//! at all. It knows nothing of what the packets hold. It runs until it is killed, or until an interface is gone.
//!
//! Not installed anywhere: it stands in for `tc netem`, which not every kernel has.

mod lane;

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;

use crate::lane::Lane;

/// How much later than due a packet may come out, so that a processor is not woken for each of them.
const GRAIN: Duration = Duration::from_micros(300);

/// The longest packet that a TUN interface can hand over.
const LONGEST: usize = 65_535;

/// A link between two TUN interfaces, which are standard input and standard output.
#[derive(Debug, Parser)]
struct Args {
    /// How long a packet is under way, in each direction
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// How many megabits a second each direction carries
    #[arg(long, value_name = "MBIT", default_value_t = 1000.0)]
    rate: f64,
    /// How many bytes may wait in each direction until it is their turn; what comes on top of that is dropped
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    queue: u64,
    /// The probability with which a packet is lost, from 0 to 1
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    loss: f64,
    /// Which packets are lost: the same ones for the same seed
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    anyhow::ensure!(args.rate >= 0.001, "--rate must be more than 0");
    let open = |fd: std::io::Result<std::os::fd::OwnedFd>| fd.map(File::from).context("cannot use an end of the link");
    let here = open(std::io::stdin().as_fd().try_clone_to_owned())?;
    let there = open(std::io::stdout().as_fd().try_clone_to_owned())?;
    let forth = carry(&args, args.seed, here.try_clone()?, there.try_clone()?);
    let back = carry(&args, !args.seed, there, here);
    for reader in [forth, back] {
        reader.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.context("cannot read from an end")?;
    }
    Ok(())
}

/// Carries packets in one direction, by two threads.
fn carry(args: &Args, seed: u64, from: File, to: File) -> thread::JoinHandle<std::io::Result<()>> {
    let lane = Lane::new(args.delay, args.rate * 1e6, args.queue, args.loss, seed);
    // Bounded by the lane, which admits no more than its queue and what fits on the wire.
    let (sender, receiver) = channel();
    thread::spawn(move || deliver(to, &receiver));
    thread::spawn(move || collect(from, lane, &sender))
}

/// A packet, and when it comes out at the other end.
type Due = (Instant, Box<[u8]>);

fn collect(mut from: File, mut lane: Lane, sender: &Sender<Due>) -> std::io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = from.read(&mut buffer)?;
        if let Some(due) = lane.admit(Instant::now(), length) {
            let _ = sender.send((due, buffer[..length].into()));
        }
    }
}

fn deliver(mut to: File, receiver: &Receiver<Due>) {
    for (due, packet) in receiver {
        let left = due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            thread::sleep(left.max(GRAIN));
        }
        // An interface that is down takes nothing, as a cable that is not plugged in.
        let _ = to.write(&packet);
    }
}
