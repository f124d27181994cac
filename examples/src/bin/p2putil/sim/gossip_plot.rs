//! Plots the behaviour of a gossipsub network: four plots in one SVG.

use std::time::Duration;

use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, LineSeries, PathElement,
    RGBColor, Rectangle, SVGBackend, SeriesLabelPosition, TRANSPARENT, WHITE,
};

use super::gossipsub::{Measured, Network};
use super::network::number;
use super::plot::{BLUE, GREY, ORANGE, draw_legend, failed};
use crate::Failure;

const SIZE: (u32, u32) = (1100, 760);
/// Maximum number of points of a line: more cannot be distinguished.
const POINTS: usize = 200;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Line = (&'static str, RGBColor, Vec<(f64, f64)>);

/// The labels of a plot.
struct Frame {
    title: &'static str,
    x: &'static str,
    y: &'static str,
    legend: SeriesLabelPosition,
}

pub(super) fn draw(title: &str, network: &Network, measured: &Measured) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_into(&mut svg, title, network, measured)?;
    Ok(svg)
}

fn draw_into(svg: &mut String, title: &str, network: &Network, measured: &Measured) -> Result<(), Failure> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let titled = area
        .titled(title, ("sans-serif", 22).into_font())
        .map_err(failed)?;
    let parts = titled.split_evenly((2, 2));
    if let [delivery, copies, meshes, scores] = &parts[..] {
        draw_delivery(delivery, measured)?;
        draw_copies(copies, measured)?;
        draw_meshes(meshes, network)?;
        draw_scores(scores, network)?;
    }
    area.present().map_err(failed)
}

/// Returns the percentage delivered over time.
fn shares(sorted: &[Duration], of: usize) -> Vec<(f64, f64)> {
    let step = sorted.len().div_ceil(POINTS).max(1);
    let at = |index: usize| {
        let time = sorted.get(index).map_or(0.0, Duration::as_secs_f64);
        (time, 100.0 * number(index + 1) / number(of.max(1)))
    };
    let last = sorted.len().checked_sub(1);
    let mut points = vec![(0.0, 0.0)];
    points.extend((0..sorted.len()).step_by(step).chain(last).map(at));
    points
}

fn draw_delivery(area: &Area<'_>, measured: &Measured) -> Result<(), Failure> {
    let frame = Frame {
        title: "delivered after",
        x: "seconds",
        y: "%",
        legend: SeriesLabelPosition::LowerRight,
    };
    let delivered = shares(&measured.latencies, measured.due);
    let bound = shares(&measured.bounds, measured.bounds.len());
    lines(
        area,
        &frame,
        &[("shortest paths", GREY, bound), ("delivered", BLUE, delivered)],
    )
}

fn draw_copies(area: &Area<'_>, measured: &Measured) -> Result<(), Failure> {
    let copies: Vec<usize> = measured.copies.iter().map(|copies| *copies as usize).collect();
    bars(
        area,
        "copies that a node receives of a message",
        "copies",
        &copies,
    )
}

fn draw_meshes(area: &Area<'_>, network: &Network) -> Result<(), Failure> {
    if network.plan.sybils == 0 {
        return bars(
            area,
            "neighbours in the mesh of a node",
            "neighbours",
            &network.degrees(),
        );
    }
    let nodes = number(network.plan.nodes);
    // If one node is attacked, the others are not plotted.
    let one = network.plan.eclipse;
    let per_node = |honest: usize, sybils: usize| {
        if one {
            (f64::NAN, number(sybils))
        } else {
            (number(honest) / nodes, number(sybils) / nodes)
        }
    };
    let over_time = network.samples.iter().map(|sample| {
        let (honest, sybils) = per_node(sample.honest, sample.sybils);
        (sample.at.as_secs_f64(), honest, sybils)
    });
    let sybils = over_time.clone().map(|(at, _, sybils)| (at, sybils)).collect();
    let honest: Vec<(f64, f64)> = over_time.map(|(at, honest, _)| (at, honest)).collect();
    let frame = Frame {
        title: if one {
            "Sybils in the mesh of the new node"
        } else {
            "mean neighbours in the mesh of a node"
        },
        x: "seconds",
        y: "neighbours",
        legend: SeriesLabelPosition::LowerLeft,
    };
    let mut series: Vec<Line> = vec![("Sybils", ORANGE, sybils)];
    if !one {
        series.push(("honest", BLUE, honest));
    }
    // The start of the attack.
    let points = series.iter().flat_map(|(_, _, points)| points);
    let highest = points.map(|(_, y)| *y).fold(0.0, f64::max);
    let begins = network.plan.attack_at.as_secs_f64();
    series.push(("attack begins", GREY, vec![(begins, 0.0), (begins, highest)]));
    lines(area, &frame, &series)
}

fn draw_scores(area: &Area<'_>, network: &Network) -> Result<(), Failure> {
    let over_time = |score: fn(&super::gossipsub::Sample) -> f64| {
        let samples = network.samples.iter();
        samples
            .map(|sample| (sample.at.as_secs_f64(), score(sample)))
            .collect::<Vec<_>>()
    };
    let mut series = vec![("honest", BLUE, over_time(|sample| sample.honest_score))];
    if network.plan.sybils > 0 {
        series.push(("Sybils", ORANGE, over_time(|sample| sample.sybil_score)));
    }
    let frame = Frame {
        title: "mean scores that honest nodes give",
        x: "seconds",
        y: "score",
        legend: SeriesLabelPosition::LowerLeft,
    };
    lines(area, &frame, &series)
}

fn lines(area: &Area<'_>, frame: &Frame, series: &[Line]) -> Result<(), Failure> {
    let points = || series.iter().flat_map(|(_, _, points)| points);
    let last = points().map(|(x, _)| *x).fold(0.1, f64::max);
    let highest = points().map(|(_, y)| *y).fold(0.1, f64::max);
    let lowest = points().map(|(_, y)| *y).fold(0.0, f64::min);
    let room = 0.05 * (highest - lowest);
    let below = if lowest < 0.0 { lowest - room } else { 0.0 };
    let mut chart = ChartBuilder::on(area)
        .caption(frame.title, ("sans-serif", 17).into_font())
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..last, below..highest + room)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc(frame.x)
        .y_desc(frame.y)
        .draw()
        .map_err(failed)?;
    for (name, color, points) in series {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    draw_legend(&mut chart, frame.legend.clone())
}

/// Plots how often each count occurs, in percent; the counts are sorted.
fn bars(area: &Area<'_>, title: &str, x: &str, counts: &[usize]) -> Result<(), Failure> {
    let most = counts.last().copied().unwrap_or(0);
    let share = |count: usize| {
        let of =
            counts.partition_point(|other| *other <= count) - counts.partition_point(|other| *other < count);
        100.0 * number(of) / number(counts.len().max(1))
    };
    let highest = (0..=most).map(share).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17).into_font())
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.5..number(most) + 0.5, 0.0..highest * 1.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(most.min(20) + 1)
        .x_label_formatter(&|count| format!("{count:.0}"))
        .x_desc(x)
        .y_desc("%")
        .draw()
        .map_err(failed)?;
    let bar = |count: usize| {
        let at = number(count);
        Rectangle::new([(at - 0.4, 0.0), (at + 0.4, share(count))], BLUE.filled())
    };
    chart.draw_series((0..=most).map(bar)).map_err(failed).map(drop)
}
