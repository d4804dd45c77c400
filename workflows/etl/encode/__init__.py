"""Write the splits and tables as codes and numbers, with the NVTabular workflow."""
