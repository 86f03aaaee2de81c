//! The report as an SVG plot.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::{Chart, Line, short};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1040;
const ROW: u32 = 22;
const PANEL: u32 = 320;
const TEXT: (&str, i32) = ("sans-serif", 13);

/// Draws how far each target is reached, and the charts, two in a row.
pub fn draw(path: &Path, lines: &[Line], charts: &[Chart]) -> Result<()> {
    let scored: Vec<(&Line, f64)> =
        lines.iter().filter_map(|line| Some((line, line.score().filter(|s| s.is_finite())?))).collect();
    let bars = ROW * u32::try_from(scored.len())? + 60;
    let panels = PANEL * u32::try_from(charts.len().div_ceil(2))?;
    let root = SVGBackend::new(path, (WIDTH, bars + panels)).into_drawing_area();
    let drawn = || -> Result<(), Box<dyn std::error::Error + '_>> {
        root.fill(&WHITE)?;
        let (top, bottom) = root.split_vertically(bars);
        draw_scores(&top, &scored)?;
        if panels > 0 {
            for (area, chart) in bottom.split_evenly((charts.len().div_ceil(2), 2)).iter().zip(charts) {
                draw_chart(area, chart)?;
            }
        }
        root.present()?;
        Ok(())
    };
    drawn().map_err(|e| anyhow!("drawing: {e}"))
}

/// A bar for each target on a logarithmic scale; the line in the middle is where it is met.
fn draw_scores<'a>(area: &Area<'a>, scored: &[(&Line, f64)]) -> Result<(), Box<dyn std::error::Error + 'a>> {
    const MET: i32 = 730;
    const DECADE: f64 = 170.0;
    let title = "how far each target is reached (a step to the line is 10 times; right of it: met)";
    area.draw(&Text::new(title, (10, 8), TEXT))?;
    let mut y = 36;
    for (line, score) in scored {
        let against = line.reference.as_ref().map_or(String::new(), |r| format!(" : {}", r.name));
        let text = format!("{}  {}{against}", line.part, line.work);
        area.draw(&Text::new(text, (10, y + 2), TEXT))?;
        #[allow(clippy::cast_possible_truncation)]
        let end = MET + (score.log10().clamp(-1.3, 1.1) * DECADE) as i32;
        let colour = if *score >= 1.0 { RGBColor(60, 140, 80) } else { RGBColor(190, 90, 60) };
        area.draw(&Rectangle::new([(MET.min(end), y), (MET.max(end), y + 14)], colour.filled()))?;
        area.draw(&Text::new(format!("{score:.2}"), (WIDTH.cast_signed() - 50, y + 2), TEXT))?;
        y += ROW.cast_signed();
    }
    area.draw(&PathElement::new([(MET, 30), (MET, y)], BLACK))?;
    Ok(())
}

fn draw_chart<'a>(area: &Area<'a>, chart: &Chart) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let bounds = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values
            .filter(|v| v.is_finite() && *v > 0.0)
            .fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), v| (low.min(v), high.max(v)));
        if low < high { low..high } else { low.min(high) * 0.9..high * 1.1 }
    };
    let xs = bounds(&mut chart.xs.iter().copied());
    let ys = bounds(&mut chart.series.iter().flat_map(|(_, ys)| ys.iter().copied()));
    // Whole decades, so that there is a label at either end.
    let decades = 10f64.powf(ys.start.log10().floor())..10f64.powf(ys.end.log10().ceil());
    let mut plot = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 15))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(60)
        .build_cartesian_2d(xs.log_scale(), decades.log_scale())?;
    plot.configure_mesh()
        .x_desc(chart.x)
        .y_desc(chart.unit)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .light_line_style(WHITE)
        .draw()?;
    for (number, (name, ys)) in chart.series.iter().enumerate() {
        let colour = Palette99::pick(number).to_rgba();
        let points: Vec<(f64, f64)> =
            chart.xs.iter().copied().zip(ys.iter().copied()).filter(|(_, y)| *y > 0.0).collect();
        plot.draw_series(points.iter().map(|&point| Circle::new(point, 3, colour.filled())))?;
        plot.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    plot.configure_series_labels().background_style(WHITE.mix(0.8)).label_font(("sans-serif", 12)).draw()?;
    Ok(())
}
