//! Plots as SVG: the hops of lookups, and success rates over time.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    Cartesian2d, ChartBuilder, ChartContext, Circle, Color as _, DrawingArea, IntoDrawingArea as _,
    IntoFont as _, LineSeries, PathElement, RGBColor, Rectangle, SVGBackend, SeriesLabelPosition,
    TRANSPARENT, WHITE,
};

use super::network::number;
use crate::Failure;

const SIZE: (u32, u32) = (900, 420);
pub(super) const BLUE: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
pub(super) const ORANGE: RGBColor = RGBColor(0xff, 0x7f, 0x0e);
pub(super) const GREY: RGBColor = RGBColor(0x99, 0x99, 0x99);

/// A percentage over minutes.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, f64)>,
}

pub(super) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("the plot cannot be drawn: {error}"))
}

/// Returns a chart with a title, and room for the labels of both axes.
fn titled<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    title: &str,
) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut chart = ChartBuilder::on(area);
    chart
        .caption(title, ("sans-serif", 20).into_font())
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(56);
    chart
}

/// Draws the names of the series into a corner of a chart.
pub(super) fn draw_legend<'a>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>,
    corner: SeriesLabelPosition,
) -> Result<(), Failure> {
    chart
        .configure_series_labels()
        .position(corner)
        .background_style(WHITE.filled())
        .border_style(GREY)
        .draw()
        .map_err(failed)
}

/// Plots how many lookups took how many hops, and the paper's mean.
pub(super) fn hops(title: &str, hops: &[usize], expected: f64) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_hops(&mut svg, title, hops, expected)?;
    Ok(svg)
}

fn draw_hops(svg: &mut String, title: &str, hops: &[usize], expected: f64) -> Result<(), Failure> {
    let most = hops.last().copied().unwrap_or(0);
    let share = |hop: usize| {
        let count = hops.iter().filter(|hops| **hops == hop).count();
        100.0 * number(count) / number(hops.len().max(1))
    };
    let highest = (0..=most).map(share).fold(1.0, f64::max);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = titled(&area, title)
        .build_cartesian_2d(-0.5..number(most).max(expected.ceil()) + 0.5, 0.0..highest * 1.1)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(most + 2)
        .x_label_formatter(&|hop| format!("{hop:.0}"))
        .y_label_formatter(&|share| format!("{share:.0} %"))
        .x_desc("hops")
        .y_desc("lookups")
        .draw()
        .map_err(failed)?;
    let bar = |hop: usize| {
        let at = number(hop);
        Rectangle::new([(at - 0.4, 0.0), (at + 0.4, share(hop))], BLUE.filled())
    };
    chart.draw_series((0..=most).map(bar)).map_err(failed)?;
    chart
        .draw_series(LineSeries::new(
            [(expected, 0.0), (expected, highest * 1.1)],
            ORANGE.stroke_width(2),
        ))
        .map_err(failed)?
        .label("½ log2 of the nodes")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], ORANGE.stroke_width(2)));
    draw_legend(&mut chart, SeriesLabelPosition::UpperRight)?;
    area.present().map_err(failed)
}

/// Plots success rates over time.
pub(super) fn over_time(title: &str, series: &[Series]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw_over_time(&mut svg, title, series)?;
    Ok(svg)
}

fn draw_over_time(svg: &mut String, title: &str, series: &[Series]) -> Result<(), Failure> {
    let points = || series.iter().flat_map(|series| &series.points);
    let lowest = points().map(|(_, percent)| *percent).fold(100.0, f64::min);
    let from = ((lowest / 10.0).floor() * 10.0 - 5.0).max(0.0);
    let last = points().map(|(minute, _)| *minute).fold(1.0, f64::max);
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(failed)?;
    let mut chart = titled(&area, title)
        .build_cartesian_2d(0.0..last, from..101.0)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|minute| format!("{minute:.0}"))
        .y_label_formatter(&|percent| format!("{percent:.0} %"))
        .x_desc("minutes of churn")
        .draw()
        .map_err(failed)?;
    for (series, color) in series.iter().zip([BLUE, ORANGE]) {
        chart
            .draw_series(LineSeries::new(
                series.points.iter().copied(),
                color.stroke_width(2),
            ))
            .map_err(failed)?
            .label(series.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
        let dots = series
            .points
            .iter()
            .map(|point| Circle::new(*point, 2, color.filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    draw_legend(&mut chart, SeriesLabelPosition::LowerRight)?;
    area.present().map_err(failed)
}
