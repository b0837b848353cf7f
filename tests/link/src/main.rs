//! A link between two network namespaces, with a delay, a rate, a bounded queue and loss in each direction.
//!
//! Standard input and standard output are its two ends. The caller opens them as TUN interfaces, each for reading and
//! writing, without packet information. A packet from one end comes out of the other end after the delay, or is lost.
//! The link does not look into packets. It runs until it is killed or an interface is gone.
//!
//! It stands in for `tc netem`, which not every kernel has. It is not installed.

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

/// The longest lateness of a packet, so that not each packet wakes a processor.
const GRAIN: Duration = Duration::from_micros(300);

/// The longest packet of a TUN interface.
const LONGEST: usize = 65_535;

/// A link between two TUN interfaces, standard input and standard output.
#[derive(Debug, Parser)]
struct Args {
    /// The delay in each direction
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// The rate of each direction in megabits a second
    #[arg(long, value_name = "MBIT", default_value_t = 1000.0)]
    rate: f64,
    /// The queue's length in bytes in each direction; a packet that exceeds it is dropped
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    queue: u64,
    /// The probability of a packet's loss, from 0 to 1
    #[arg(long, value_name = "PROBABILITY", default_value_t = 0.0)]
    loss: f64,
    /// The seed of the losses
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

/// Carries packets in one direction with two threads.
fn carry(args: &Args, seed: u64, from: File, to: File) -> thread::JoinHandle<std::io::Result<()>> {
    let lane = Lane::new(args.delay, args.rate * 1e6, args.queue, args.loss, seed);
    // The lane bounds this channel: it admits only its queue and what fits on the wire.
    let (sender, receiver) = channel();
    thread::spawn(move || deliver(to, &receiver));
    thread::spawn(move || collect(from, lane, &sender))
}

/// A packet and the time when it comes out.
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
        // An interface that is down drops packets, like an unplugged cable.
        let _ = to.write(&packet);
    }
}
