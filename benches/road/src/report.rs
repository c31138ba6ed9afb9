//! What was measured, as a table, JSON and a plot.

use crate::workloads::{Figures, headline};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One workload: for each contender its rounds, in the order of the table.
#[derive(Debug, Default)]
pub struct Workload {
    pub name: String,
    /// What it was: `5000 files`.
    pub what: String,
    pub contenders: Vec<(String, Vec<Figures>)>,
}

#[derive(Clone, Copy, Debug)]
struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

fn spread(mut figures: Vec<f64>) -> Option<Spread> {
    figures.sort_by(f64::total_cmp);
    let least = *figures.first()?;
    Some(Spread {
        least,
        median: f64::midpoint(figures[(figures.len() - 1) / 2], figures[figures.len() / 2]),
        most: *figures.last()?,
    })
}

impl Workload {
    fn of(&self, contender: usize, figure: &str) -> Vec<Option<f64>> {
        let rounds = &self.contenders[contender].1;
        rounds
            .iter()
            .map(|figures| figures.get(figure).copied())
            .collect()
    }

    /// Round by round against the first contender.
    fn ratio(&self, contender: usize, figure: &str) -> Option<Spread> {
        let pairs = self.of(contender, figure).into_iter().zip(self.of(0, figure));
        spread(
            pairs
                .filter_map(|(ours, first)| Some(ours? / first?))
                .filter(|ratio| ratio.is_finite())
                .collect(),
        )
    }

    fn rows(&self) -> Vec<(usize, &'static str)> {
        let mut rows = Vec::new();
        for (at, (_, rounds)) in self.contenders.iter().enumerate() {
            let names: BTreeMap<&'static str, ()> = rounds
                .iter()
                .flat_map(|figures| figures.keys().map(|name| (*name, ())))
                .collect();
            rows.extend(names.into_keys().map(|name| (at, name)));
        }
        rows
    }
}

/// Columns: figure, contender, median, spread, ratio to the first contender of that workload.
pub fn table(workloads: &[Workload]) -> String {
    let mut out = String::new();
    for workload in workloads {
        let first = workload.contenders.first().map_or("", |(name, _)| name);
        let _ = writeln!(out, "\n{} ({}), ratios to {first}", workload.name, workload.what);
        for (at, figure) in workload.rows() {
            let Some(all) = spread(workload.of(at, figure).into_iter().flatten().collect()) else {
                continue;
            };
            let ratio = match workload.ratio(at, figure) {
                Some(ratio) if at > 0 => {
                    format!("{:>8.2}x ({:.2} .. {:.2})", ratio.median, ratio.least, ratio.most)
                }
                _ => String::new(),
            };
            let _ = writeln!(
                out,
                "  {:<14} {figure:<15} {:>10.1} ({:.1} .. {:.1}) {ratio}",
                workload.contenders[at].0, all.median, all.least, all.most
            );
        }
    }
    out
}

pub fn json(workloads: &[Workload], about: Value) -> Value {
    let each = |workload: &Workload| {
        let contenders: Vec<Value> = workload
            .contenders
            .iter()
            .map(|(name, rounds)| json!({ "name": name, "rounds": rounds }))
            .collect();
        let ratios: Vec<Value> = workload
            .rows()
            .into_iter()
            .filter_map(|(at, figure)| {
                let ratio = workload.ratio(at, figure)?;
                let name = &workload.contenders[at].0;
                Some(
                    json!({ "contender": name, "figure": figure, "median": ratio.median,
                             "least": ratio.least, "most": ratio.most }),
                )
            })
            .collect();
        json!({ "name": workload.name, "what": workload.what, "contenders": contenders, "ratios": ratios })
    };
    json!({ "about": about, "workloads": workloads.iter().map(each).collect::<Vec<_>>() })
}

/// A panel for each workload: a bar for each contender as long as the median of its headline figure, and a line
/// from the least to the most.
pub fn plot(workloads: &[Workload]) -> String {
    const BAR: f64 = 22.0;
    let mut body = String::new();
    let mut y = 10.0;
    for workload in workloads {
        let figure = headline(&workload.name);
        let bars: Vec<(&str, Spread)> = workload
            .contenders
            .iter()
            .enumerate()
            .filter_map(|(at, (name, _))| {
                let all = spread(workload.of(at, figure).into_iter().flatten().collect())?;
                Some((name.as_str(), all))
            })
            .collect();
        let most = bars.iter().map(|(_, all)| all.most).fold(0.0, f64::max);
        if most <= 0.0 {
            continue;
        }
        let scale = 420.0 / most;
        y += 24.0;
        let _ = writeln!(
            body,
            r#"<text x="10" y="{y}" font-weight="bold">{} ({}): {figure}</text>"#,
            workload.name, workload.what
        );
        for (at, (name, all)) in bars.iter().enumerate() {
            let color = if at == 0 { "#9aa5b1" } else { "#2f6f9f" };
            let middle = y + 18.0;
            let _ = writeln!(
                body,
                r##"<text x="130" y="{:.0}" text-anchor="end">{name}</text>
<rect x="140" y="{:.0}" width="{:.1}" height="14" fill="{color}"/>
<line x1="{:.1}" x2="{:.1}" y1="{middle:.0}" y2="{middle:.0}" stroke="#222"/>
<text x="{:.0}" y="{:.0}">{:.1}</text>"##,
                y + 22.0,
                y + 11.0,
                all.median * scale,
                140.0 + all.least * scale,
                140.0 + all.most * scale,
                146.0 + all.most * scale,
                y + 22.0,
                all.median
            );
            y += BAR;
        }
        y += 8.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"660\" height=\"{:.0}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n",
        y + 14.0
    )
}
