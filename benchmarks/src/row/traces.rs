//! Row 14: what it costs that traces are told, as many as by default: the same cluster beside itself.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Result, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::{
    book::{Aim, Book},
    field::Extent,
    load::{Askers, Seen, drive},
    ours::Ours,
    row::writes::{Lock, Maker},
};

/// With how many clients.
const CLIENTS: usize = 64;
/// Of them share one connection.
const CLIENTS_OF_CONNECTION: usize = 8;

/// Takes spans, and has no use for them.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Measures the row.
pub(crate) async fn measure(extent: &Extent, programs: PathBuf, book: &mut Book) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let collector: SocketAddr = listener.local_addr()?;
    let sink = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Sink))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let sink = tokio::spawn(sink);
    let traced = Ours::traced(programs.clone(), collector).await?;
    traced.pause()?;
    let silent = Ours::start(programs).await?;
    let (mut with, mut without): (Vec<Seen>, Vec<Seen>) = Default::default();
    // Each has its turn as the first.
    for round in 0..extent.rounds * 2 {
        let (one, other) = if round % 2 == 0 { (&silent, &traced) } else { (&traced, &silent) };
        for cluster in [one, other] {
            let idle = if std::ptr::eq(cluster, one) { other } else { one };
            idle.pause()?;
            cluster.resume(extent.settle).await?;
            let seen = drive(lockers(cluster, round).await?, extent.lasting).await?;
            if std::ptr::eq(cluster, &traced) { with.push(seen) } else { without.push(seen) }
        }
    }
    sink.abort();
    ensure!(with.len() == without.len(), "a round is missing");
    let all = |figure: fn(&Seen) -> f64| {
        (with.iter().map(figure).collect(), without.iter().map(figure).collect())
    };
    let case = format!("lock, {CLIENTS} clients, 5 % of calls traced");
    book.beside(14, &case, "per s", all(|seen| seen.per_s), "no traces", Aim::TimesAtLeast(0.95));
    book.beside(14, &case, "ms, p50", all(|seen| seen.p50_ms), "no traces", Aim::Told);
    book.beside(14, &case, "ms, p99", all(|seen| seen.p99_ms), "no traces", Aim::Told);
    Ok(())
}

async fn lockers(ours: &Ours, round: usize) -> Result<Askers> {
    let few = ours.clients(CLIENTS.div_ceil(CLIENTS_OF_CONNECTION)).await?;
    let clients = few.into_iter().cycle().take(CLIENTS).enumerate();
    let askers = clients.map(|(number, client)| {
        Box::new(Lock::named(Maker::calls(client), &format!("traces-{round}-{number}"))) as _
    });
    Ok(askers.collect())
}
