//! Handing over to a successor, on the control thread; what is said meanwhile is in `takeover/`.
//!
//! From the demand on, the daemon does nothing else: requests wait, and no timer of it runs. Until the successor says that it serves,
//! everything is kept that going on needs. Going on is like a start: the connections are found in their file again, as
//! the successor may have begun to use them.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use xlvs_dataplane::clock::Now;
use xlvs_dataplane::connection::restore::Restoration;
use xlvs_dataplane::connection::table::Population;
use xlvs_dataplane::port::af_xdp::AfXdpPort;

use super::start::restore;
use super::{Daemon, service_manager};
use crate::failure::Failure;
use crate::launch::{self, Crew, Post};
use crate::takeover::{Answer, Consent, Handed, Heir, Hello};

/// How long a successor may take to serve, with few connections ...
const SERVE_LIMIT: Duration = Duration::from_secs(1);
/// ... and for how many it may take a second more.
const CONNECTIONS_A_SECOND: u32 = 2_000_000;

/// How long a director that has just started itself may take until its connections are found.
const RESTORE_LIMIT: Duration = Duration::from_secs(5);

impl Daemon {
    /// Whether a process may take over that says this of itself.
    pub(super) fn consent(&self, hello: &Hello) -> Answer {
        let own = match Hello::new(&self.configuration.director) {
            Ok(own) => own,
            Err(error) => return Answer::Refused(format!("its network namespace can't be told: {error}")),
        };
        if let Err(why) = hello.check(&own) {
            return Answer::Refused(why);
        }
        if self.connections.files().is_none() {
            let why = "its connections are in no file, so that they would end: a restart is needed instead";
            return Answer::Refused(why.to_owned());
        }
        Answer::Agreed(Consent {
            pid: std::process::id(),
            version: own.version,
            real_servers: self.registry.real_servers().collect(),
        })
    }

    /// Hands over. Returns the interfaces that the successor serves; `None` if this director goes on.
    ///
    /// # Errors
    /// When it can't go on either.
    pub(super) async fn hand_over(&mut self, heir: Heir) -> Result<Option<Vec<String>>, Failure> {
        if let Err(why) = self.prepare_to_leave().await {
            self.succession.failed_heir(heir.pid, &format!("was refused: {why}"));
            // It finds out in any case.
            let _ = heir.tell(&Answer::Refused(why), &[]).await;
            return Ok(None);
        }
        tracing::info!("handing over to process {}", heir.pid);
        // What other directors tell would come into tables that are being given away. Timers are set anew if it goes on.
        self.synchronization.rest();
        let (began, stopped) = (Instant::now(), Now::read());
        self.server.pause();
        let ports = self.stop_workers().await;
        let pid = heir.pid;
        let why = match self.await_successor(&heir, stopped, ports).await {
            Ok(interfaces) => {
                service_manager::tell_successor(pid);
                let _ = heir.tell(&Answer::Farewell, &[]).await;
                tracing::info!("process {pid} serves");
                return Ok(Some(interfaces));
            }
            Err(why) => why,
        };
        heir.end().await;
        self.go_on()?;
        self.succession.failed_heir(pid, &why);
        tracing::info!("forwarding again, after {} ms", began.elapsed().as_millis());
        Ok(None)
    }

    /// What has to hold before anything is given up.
    async fn prepare_to_leave(&mut self) -> Result<(), String> {
        self.keep().map_err(|error| error.to_string())?;
        if self.store.is_behind() {
            return Err("its state can't be written to disk".to_owned());
        }
        // Those of the former run that are still being found are not workers' alone.
        let deadline = Instant::now() + RESTORE_LIMIT;
        while self.launched.connections.is_restoring() {
            if Instant::now() > deadline {
                return Err("its connections are still being found".to_owned());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Nor would a thread that was left standing: should it come to life, it has the tables.
        let is_well = |worker: &Crew| worker.thread.is_some() && worker.condition.trouble.is_none();
        if !self.crew.iter().all(is_well) || self.abandoned_epochs().next().is_some() {
            return Err("one of its workers stands still, or its queue can't be opened".to_owned());
        }
        // One that does not listen would not stop either.
        self.publish();
        self.await_workers().await;
        if self.oldest_epoch() < self.registry.epoch() {
            return Err("one of its workers does not respond".to_owned());
        }
        Ok(())
    }

    /// Has the workers end. Returns their queues, which are still open.
    async fn stop_workers(&mut self) -> Vec<AfXdpPort> {
        self.end_workers().await;
        let mut ports = Vec::with_capacity(self.crew.len());
        for worker in &mut self.crew {
            let ended = worker.thread.take_if(|thread| thread.is_finished());
            ports.extend(ended.and_then(|thread| thread.join().ok()));
            worker.count_anew();
        }
        // Where schedulers have come to.
        self.connections.keep(&self.registry, Now::read());
        ports
    }

    /// Gives everything to the successor, and waits until it serves. It reads what it has got while the queues are closed.
    async fn await_successor(
        &self,
        heir: &Heir,
        stopped: Now,
        ports: Vec<AfXdpPort>,
    ) -> Result<Vec<String>, String> {
        let Some((connections, connections_lock)) = self.connections.files() else {
            return Err("can't have the connections".to_owned());
        };
        let files = [self.server.listener(), self.store.lock().as_fd(), connections.as_fd()];
        let files: Vec<_> = files.into_iter().chain(connections_lock.map(AsFd::as_fd)).collect();
        let health = self.registry.reports();
        let health = health.map(|(name, report)| (name.service.into(), name.real, report.clone())).collect();
        let handed = Answer::Handed(Box::new(Handed { stopped_ms: stopped.0, health }));
        heir.tell(&handed, &files).await.map_err(|error| format!("can't be told: {error}"))?;
        // The kernel takes some milliseconds for each.
        std::thread::scope(|scope| {
            for port in ports {
                scope.spawn(move || drop(port));
            }
        });
        let live = self.launched.connections.v4.population().live();
        let more = Duration::from_secs(1).saturating_mul(live) / CONNECTIONS_A_SECOND;
        heir.serves(SERVE_LIMIT + more).await
    }

    /// Forwards again, with the connections as they are now.
    fn go_on(&mut self) -> Result<(), Failure> {
        let director = &self.configuration.director;
        let ports = launch::prepare_ports(director, &self.launched.links, self.crew.len() as u32)?;
        self.connections.keep(&self.registry, Now::read());
        let tables = self
            .connections
            .tables(Arc::new(Population::new(director.max_connections)), launch::random_seed()?)
            .map_err(|error| Failure::Runtime(format!("the connections can't be had again: {error}")))?;
        let table = Arc::clone(self.publisher.table());
        let restoration = Restoration::begin_again(tables.clone(), table.clone(), Now::read());
        let steerings = self.publisher.steerings();
        let facts = &self.launched;
        let (links, fragments) = (&facts.links, &facts.fragments);
        let post = Post { director, links, connections: &tables, fragments, table: &table };
        let mut handles = Vec::with_capacity(self.crew.len());
        for (number, (worker, port)) in self.crew.iter_mut().zip(ports).enumerate() {
            let (handle, new) = post.open(number, worker.core, port, steerings)?;
            worker.replace(new);
            handles.push(handle);
        }
        for steering in steerings {
            steering.attach(director.xdp_mode).map_err(|error| launch::failure(&error))?;
        }
        self.publisher.set_workers(handles);
        self.launched.connections = tables;
        self.keep_memory_ahead();
        restore(&mut self.connections, restoration)?;
        self.server
            .resume()
            .map_err(|error| Failure::Runtime(format!("the control socket can't be had again: {error}")))?;
        self.store.own();
        self.keep_all();
        self.want_real_servers();
        self.follow_sync();
        self.dirty = true;
        Ok(())
    }

    /// The end of a director that has handed over: everything stays as it is but what the successor does not serve.
    pub(super) fn leave(mut self, kept: &[String]) {
        let is_kept = |interface: &str| kept.iter().any(|name| name == interface);
        for error in self.publisher.detach_but(is_kept) {
            tracing::error!("{error}");
        }
        self.server.leave();
        self.kernel.leave();
        self.health.stop();
        tracing::info!("ended; another process forwards");
    }
}
