//! Pings from the machine on the wire, a hundred a second: how long a guest was not there.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::{LONG, World};

/// Pings until it is asked how they went.
pub struct Pings {
    ping: Child,
    answers: JoinHandle<Vec<(f64, u32)>>,
}

/// How pings went.
#[derive(Debug)]
pub struct Heard {
    /// How many were answered.
    pub answers: usize,
    /// How many before the last answer were not.
    pub lost: usize,
    /// The longest time from one answer to the next.
    pub silence: Duration,
}

impl Pings {
    /// Returns with the first answer.
    pub fn start(world: &World, address: &str) -> Self {
        let mut command = world.machine.command("ping");
        command.args(["-D", "-n", "-i", "0.01", address]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut ping = command.spawn().unwrap();
        let lines = BufReader::new(ping.stdout.take().unwrap()).lines();
        let (first, begun) = mpsc::channel();
        let answers = std::thread::spawn(move || {
            let heard = |line: String| {
                let (time, rest) = line.strip_prefix('[')?.split_once(']')?;
                let (number, _) = rest.split_once("icmp_seq=")?.1.split_once(" ttl=")?;
                // Nobody waits for the second.
                let _ = first.send(());
                Some((time.parse().ok()?, number.parse().ok()?))
            };
            lines.map_while(Result::ok).filter_map(heard).collect()
        });
        begun.recv_timeout(LONG).unwrap();
        Self { ping, answers }
    }

    /// Ends them.
    pub fn end(mut self) -> Heard {
        kill(Pid::from_raw(i32::try_from(self.ping.id()).unwrap()), Signal::SIGINT).unwrap();
        self.ping.wait().unwrap();
        let answers = self.answers.join().unwrap();
        let silences = answers.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let silence = Duration::from_secs_f64(silences.fold(0.0, f64::max));
        let last = answers.iter().map(|(_, number)| *number).max().unwrap_or_default();
        Heard { answers: answers.len(), lost: (last as usize).saturating_sub(answers.len()), silence }
    }
}
