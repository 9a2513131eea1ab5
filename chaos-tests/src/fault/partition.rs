//! Links between nodes are cut.

use anyhow::Result;
use async_trait::async_trait;

use super::{Fault, Proof, Site};

/// Which links.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape {
    /// Nobody hears the leader, and it hears nobody.
    LeaderAlone,
    /// It is heard, and hears nobody.
    LeaderDeaf,
    /// It hears, and is not heard.
    LeaderMute,
    /// Two sides, each of which is alone.
    Halves,
    /// Everybody hears a majority, and no two the same one.
    Ring,
    /// Two sides, and one node that hears both.
    Bridge,
}

struct Partition {
    shape: Shape,
    dropped: u64,
}

pub(super) fn make(shape: Shape) -> Box<dyn Fault> {
    Box::new(Partition { shape, dropped: 0 })
}

#[async_trait]
impl Fault for Partition {
    async fn strike(&mut self, site: &mut Site) -> Result<Vec<usize>> {
        let nodes = site.nodes();
        let mut order: Vec<usize> = (0..nodes).collect();
        site.random.shuffle(&mut order);
        if let Some(leader) = site.leader.filter(|_| site.at_leader) {
            // On the side that is told.
            order.retain(|node| *node != leader);
            order.insert(0, leader);
        }
        let links = match self.shape {
            Shape::LeaderAlone | Shape::LeaderDeaf | Shape::LeaderMute => {
                let Some(leader) = site.leader else { return Ok(Vec::new()) };
                order.retain(|node| *node == leader);
                let others = (0..nodes).filter(|node| *node != leader);
                let pairs = others.flat_map(|node| [(leader, node), (node, leader)]);
                let shape = self.shape;
                let cut = pairs.filter(|(from, to)| match shape {
                    Shape::LeaderDeaf => *to == leader,
                    Shape::LeaderMute => *from == leader,
                    Shape::LeaderAlone | Shape::Halves | Shape::Ring | Shape::Bridge => true,
                });
                cut.collect()
            }
            Shape::Halves => {
                let majority = order.split_off(nodes / 2);
                between(&order, &majority)
            }
            Shape::Bridge => {
                // The last one hears both.
                order.pop();
                between(&order[..nodes / 2], &order[nodes / 2..])
            }
            Shape::Ring => ring(&order),
        };
        self.dropped = site.cluster.dropped()?;
        site.cluster.cut(&links)?;
        Ok(order)
    }

    async fn mend(&mut self, site: &mut Site) -> Result<Proof> {
        site.cluster.heal()?;
        let dropped = site.cluster.dropped()? - self.dropped;
        let told = format!("{dropped} packets dropped");
        Ok(if dropped > 0 { Ok(told) } else { Err(told) })
    }
}

/// Every link between two sides, in both directions.
fn between(one: &[usize], other: &[usize]) -> Vec<(usize, usize)> {
    let pairs = one.iter().flat_map(|a| other.iter().map(|b| (*a, *b)));
    pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect()
}

/// Every link but those to the nearest in the order: so many that each hears a majority with itself.
fn ring(order: &[usize]) -> Vec<(usize, usize)> {
    let count = order.len();
    let reach = (count / 2).div_ceil(2);
    let near = |a: usize, b: usize| {
        let apart = a.abs_diff(b);
        apart.min(count - apart) <= reach
    };
    let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
    let far = pairs.filter(|(a, b)| !near(*a, *b));
    far.map(|(a, b)| (order[a], order[b])).collect()
}

#[cfg(test)]
mod tests {
    use super::ring;

    #[test]
    fn in_a_ring_each_hears_a_majority_and_nobody_all() {
        for count in [5, 7, 9] {
            let order: Vec<usize> = (0..count).collect();
            let cut = ring(&order);
            for node in order {
                let heard = count - cut.iter().filter(|(from, _)| *from == node).count();
                assert!(heard > count / 2 && heard < count, "{node} of {count} hears {heard}");
            }
        }
    }
}
