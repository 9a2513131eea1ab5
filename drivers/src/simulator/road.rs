//! How a guest comes from one simulated host to another: within this process, or over a connection, on which each
//! side says one line at a time. First that a guest is about to come, then, when it stands still, the guest.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use ::guard::is_broken;
use domain::{id::VmId, instance::Body};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream},
    net::{TcpListener, TcpStream},
};

use super::{
    lock,
    migration::{HOSTS, Shared, broken},
    world::Domain,
};
use crate::DriverError;

/// Longest time between what one side says and what the other does.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest time in which a guest may be copied.
const COPY: Duration = Duration::from_secs(60);
/// Longest line: a guest has a console.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// What a host says that has done what it was told.
const DONE: &str = "done";

#[derive(Serialize, Deserialize)]
struct Parcel {
    vm: VmId,
    guest: Domain,
}

/// The way to another host.
pub(super) enum Road {
    Within(Arc<Shared>),
    Across(BufStream<TcpStream>),
}

impl Road {
    /// The way to the host at an address, where a guest is about to come.
    pub(super) async fn open(address: &str, vm: VmId) -> Result<Road, DriverError> {
        if let Some(there) = lock(&HOSTS).get(address).and_then(Weak::upgrade) {
            there.expect(vm);
            return Ok(Road::Within(there));
        }
        let unreachable = |_| broken("the target cannot be reached");
        let address: SocketAddr = address.parse().map_err(|_| broken("the target is gone"))?;
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream = connected.map_err(io::Error::from).flatten().map_err(unreachable)?;
        let mut stream = BufStream::new(stream);
        ask(&mut stream, &vm).await?;
        Ok(Road::Across(stream))
    }

    /// Hands a guest over that stands still. After an error it may have come all the same, and stands still there.
    pub(super) async fn hand_over(&mut self, vm: VmId, guest: Domain) -> Result<(), DriverError> {
        match self {
            Road::Within(there) => there.arrive(vm, guest),
            Road::Across(stream) => ask(stream, &Parcel { vm, guest }).await,
        }
    }

    /// No guest comes.
    pub(super) fn close(self, vm: VmId) {
        match self {
            Road::Within(there) => there.expect_no_more(vm),
            // The other side sees that it ends.
            Road::Across(_) => {}
        }
    }
}

/// Says something and waits until it is done.
async fn ask(stream: &mut BufStream<TcpStream>, what: &impl Serialize) -> Result<(), DriverError> {
    let line = serde_json::to_string(what).map_err(|error| broken(&error.to_string()))?;
    let asked = async {
        say(stream, &line).await?;
        hear(stream).await
    };
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(said)) if said == DONE => Ok(()),
        Ok(Ok(said)) => Err(broken(&said)),
        Ok(Err(error)) => Err(broken(&error.to_string())),
        Err(_) => Err(broken("the target does not answer")),
    }
}

async fn say(stream: &mut BufStream<TcpStream>, line: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.flush().await
}

async fn hear(stream: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_BYTES_MAX).read_line(&mut line).await?;
    match line.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Receives guests on connections.
pub(super) async fn serve(here: Arc<Shared>, listener: TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let here = here.clone();
        tokio::spawn(async move {
            // Whoever sends sees that it failed.
            let _ = receive(&here, BufStream::new(stream)).await;
        });
    }
}

async fn receive(here: &Shared, mut stream: BufStream<TcpStream>) -> io::Result<()> {
    let first = tokio::time::timeout(PATIENCE, hear(&mut stream)).await;
    let vm: VmId = serde_json::from_str(&first.map_err(io::Error::from).flatten()?)?;
    here.expect(vm);
    say(&mut stream, DONE).await?;
    let heard = tokio::time::timeout(COPY, hear(&mut stream)).await;
    let parcel = heard.map_err(io::Error::from).flatten();
    let arrived = parcel.and_then(|line| {
        let Parcel { vm: same, guest } = serde_json::from_str(&line)?;
        if same != vm {
            return Err(io::Error::other("it is another guest"));
        }
        here.arrive(vm, guest).map_err(io::Error::other)
    });
    match arrived {
        Ok(()) => say(&mut stream, DONE).await,
        Err(error) => {
            here.expect_no_more(vm);
            say(&mut stream, &error.to_string().replace('\n', " ")).await
        }
    }
}

impl Shared {
    /// A guest is about to come.
    fn expect(&self, vm: VmId) {
        self.turn(vm, Body::Ready, Body::Incoming);
    }

    /// It does not come.
    fn expect_no_more(&self, vm: VmId) {
        self.turn(vm, Body::Incoming, Body::Ready);
    }

    fn turn(&self, vm: VmId, from: Body, to: Body) {
        let mut world = lock(&self.world);
        if let Some(place) = world.domains.get_mut(&vm).filter(|place| place.body == from) {
            place.body = to;
            world.keep(vm, None);
        }
    }

    /// A guest has come. It stands still until it is let go on.
    fn arrive(&self, vm: VmId, guest: Domain) -> Result<(), DriverError> {
        let mut world = lock(&self.world);
        world.expire();
        let place = world.domains.get_mut(&vm).filter(|place| place.body == Body::Incoming);
        let Some(place) = place else { return Err(broken("its place is gone")) };
        let goes_on = guest.body == Body::Running && is_broken("no-pause");
        let body = if goes_on { Body::Running } else { Body::Arrived };
        *place = Domain { body, leaving: false, ..guest };
        world.keep(vm, None);
        drop(world);
        self.tell(vm);
        Ok(())
    }
}
