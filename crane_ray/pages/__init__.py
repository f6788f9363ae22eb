"""What self-contained HTML pages are made of: elements, charts of SVG, scales, style."""
