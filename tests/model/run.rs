//! A run: one seed's steps, taken by the reference and by the directors, and compared after each.

use std::collections::{BTreeMap, VecDeque};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::frame::{ETHERNET, frame};
use crate::reference::{Fate, KEPT, Model, Packet, Standing};
use crate::step::{Step, draw};
use crate::world::{Entry, World};

/// Whole tables are compared after one step in so many, and after all that change more than one connection.
const WHOLE: u64 = 16;
/// Steps that a failure prints.
const TAIL: usize = 30;

/// One seed's director and reference.
pub struct Run {
    seed: u64,
    random: ChaCha8Rng,
    model: Model,
    world: World,
    steps: u64,
    /// How often packets met which fate.
    pub fates: BTreeMap<&'static str, u64>,
    tail: VecDeque<(u64, u64, Step)>,
}

/// A run that fails tells how it came to that.
impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, step) = (self.seed, self.steps);
            println!("\nseed {seed}, step {step} (to see it again: XLVS_MODEL_SEED={seed}); the last steps:");
            for (step, now, what) in &self.tail {
                println!("  {step} at {now} ms: {what:?}");
            }
        }
    }
}

impl Run {
    /// A director without services.
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let limit = if random.random_bool(0.3) { random.random_range(5..60) } else { 5000 };
        // Time is a whole second but where timers are looked at.
        let model = Model::new(1000 * random.random_range(1000..1_000_000), limit);
        let world = World::new(&model, seed);
        let (fates, tail) = Default::default();
        Self { seed, random, model, world, steps: 0, fates, tail }
    }

    /// Takes a step at random.
    pub fn step(&mut self) {
        self.steps += 1;
        let step = draw(&mut self.random, &self.model);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back((self.steps, self.model.now, step.clone()));
        let mut whole = self.steps.is_multiple_of(WHOLE);
        match step {
            Step::Packet { packet, payload, worker } => self.packet(&packet, payload, worker),
            Step::Pass(seconds) => {
                self.pass(seconds);
                whole = true;
            }
            Step::Doze(seconds) => self.model.now += 1000 * seconds,
            change => self.change(change),
        }
        if whole {
            self.compare_tables();
        }
        self.compare_counts();
    }

    fn packet(&mut self, packet: &Packet, payload: usize, worker: usize) {
        let mut bytes = frame(packet, payload);
        assert_eq!(bytes.len() - ETHERNET, packet.bytes as usize);
        let before = self.world.connection(&bytes);
        let sent = bytes.clone();
        let expected = self.model.packet(packet);
        let got = self.world.process(worker, &mut bytes, self.model.now);
        assert_eq!(got, expected, "what became of {packet:?}: left the directors', right the reference's");
        *self.fates.entry(got.name()).or_default() += 1;
        // Whatever the reference says.
        if let Some(connection) = before.filter(|one| one.deadline > self.model.now && !packet.begins()) {
            let present = self.model.servers[&connection.server].standing == Standing::Present;
            assert!(
                !present || got == Fate::To(connection.server),
                "a live connection of a server that is present went elsewhere: {connection:?}"
            );
        }
        let flow = packet.flow();
        let expected = self.model.connections.get(&flow).map(|_| self.entry_of(&flow));
        assert_eq!(self.world.connection(&sent), expected, "the connection: left the directors'");
    }

    fn change(&mut self, change: Step) {
        let (model, incarnation) = (&mut self.model, self.steps);
        match change {
            Step::PutService { key, discipline, persistence, one_packet } => {
                model.put_service(key, discipline, persistence, one_packet, incarnation);
            }
            Step::DeleteService { key, standing } => model.delete_service(&key, standing),
            Step::PutServer { key, address, weight, thresholds } => {
                model.put_server(key, address, weight, thresholds);
            }
            Step::DeleteServer { id, standing } => model.delete_server(id, standing),
            Step::FailServer { id, failed } => model.fail_server(id, failed),
            Step::Set(settings) => model.set(settings),
            Step::SetTimeouts(timeouts) => model.timeouts = timeouts,
            Step::SetRules(rules) => model.rules = rules,
            Step::Packet { .. } | Step::Pass(_) | Step::Doze(_) => unreachable!("no change"),
        }
        model.forget();
        self.world.publish(&self.model);
    }

    /// Lets seconds pass. Timers are looked at towards the end of each, so that what is over at a whole second is still in
    /// the table then.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            let begin = self.model.now;
            self.model.now = begin + 700;
            self.world.expire(self.model.now);
            let (world, now, mut entries) = (&self.world, self.model.now, None);
            self.model.expire(|template| {
                let entries = entries.get_or_insert_with(|| world.entries());
                let at = entries.iter().position(|entry| {
                    let is_kept = entry.deadline == now + KEPT;
                    entry.template
                        && (entry.protocol, entry.client, entry.virtual_address) == template.flow
                        && (entry.server, entry.orphaned) == (template.server, template.orphaned)
                        && entry.connections == template.connections
                        && (is_kept || entry.deadline == now && template.deadline == now)
                })?;
                // Another of the same client must not find it again.
                Some(entries.remove(at).deadline)
            });
            self.model.now = begin + 1000;
        }
    }

    /// Everything is over: nothing is left of it.
    pub fn end(&mut self) {
        self.pass(8000);
        self.compare_counts();
        self.compare_tables();
        assert_eq!((self.world.live(), self.world.entries()), (0, Vec::new()));
        for id in self.model.servers.keys() {
            assert_eq!(self.world.counts(*id).0, [0; 3], "server {id}: active, inactive, persistent");
        }
    }

    fn compare_counts(&self) {
        let (model, world) = (&self.model, &self.world);
        assert!(world.live() <= model.limit, "{} connections of at most {}", world.live(), model.limit);
        assert_eq!(world.live(), model.connections.len() + model.templates.len(), "live connections");
        assert_eq!(world.made_and_ended(), (model.created, model.ended), "connections made and ended");
        for (id, server) in &model.servers {
            let expected = (
                [server.active, server.inactive, server.persistent],
                [server.connections, server.packets, server.bytes],
                server.overloaded,
            );
            assert_eq!(world.counts(*id), expected, "counts of server {id}: left the directors', {server:?}");
        }
    }

    fn entry_of(&self, flow: &crate::reference::Flow) -> Entry {
        let connection = &self.model.connections[flow];
        Entry {
            template: false,
            orphaned: false,
            protocol: flow.0,
            client: flow.1,
            virtual_address: flow.2,
            server: connection.server,
            state: connection.state.name(),
            deadline: connection.deadline,
            packets: connection.packets,
            mark: connection.mark,
            connections: 0,
        }
    }

    fn compare_tables(&self) {
        let templates = self.model.templates.iter().map(|template| Entry {
            template: true,
            orphaned: template.orphaned,
            protocol: template.flow.0,
            client: template.flow.1,
            virtual_address: template.flow.2,
            server: template.server,
            state: if template.assured { "ASSURED" } else { "NONE" },
            deadline: template.deadline,
            packets: 0,
            mark: template.mark,
            connections: template.connections,
        });
        let mut expected: Vec<_> =
            templates.chain(self.model.connections.keys().map(|flow| self.entry_of(flow))).collect();
        expected.sort();
        let got = self.world.entries();
        if got != expected {
            let only = |a: &[Entry], b: &[Entry]| -> Vec<Entry> {
                a.iter().filter(|one| !b.contains(one)).cloned().collect()
            };
            panic!(
                "tables differ: only the directors have {:#?}, only the reference {:#?}",
                only(&got, &expected),
                only(&expected, &got)
            );
        }
    }
}
